"""Words by which people of other networks stop, start and ask about messages. Pure."""

from enum import StrEnum


class Keyword(StrEnum):
    STOP = "stop"
    START = "start"
    HELP = "help"


_WORDS: dict[Keyword, dict[str, str]] = {
    Keyword.STOP: {
        "en": "stop stopall unsubscribe cancel end quit revoke optout opt-out",
        "de": "stopp halt abmelden abbestellen",
        "fr": "arret arrêt arrêter desabonner désabonner",
        "es": "alto parar pare baja",
        "it": "ferma fermare",
        "ru": "стоп",
        "ar": "توقف ايقاف إيقاف",
        "zh": "停止 退订",
    },
    Keyword.START: {
        "en": "start unstop subscribe",
        "de": "starten anmelden",
        "fr": "commencer reprendre",
        "es": "empezar iniciar alta",
        "it": "inizia avvia",
        "ru": "старт",
        "ar": "ابدأ",
        "zh": "开始",
    },
    Keyword.HELP: {
        "en": "help info",
        "de": "hilfe",
        "fr": "aide",
        "es": "ayuda ajuda",
        "it": "aiuto",
        "ru": "помощь",
        "ar": "مساعدة",
        "zh": "帮助",
    },
}
_KNOWN = {
    word: (keyword, language)
    for keyword, languages in _WORDS.items()
    for language, words in languages.items()
    for word in words.split()
}
_SAID = {
    Keyword.STOP: {
        "en": "You get no more messages from here. Send START to go on.",
        "de": "Sie erhalten keine Nachrichten mehr von hier. Mit START geht es weiter.",
        "fr": "Vous ne recevrez plus de messages. Envoyez START pour reprendre.",
        "es": "No recibirá más mensajes. Envíe START para continuar.",
    },
    Keyword.START: {
        "en": "You get messages from here again. Send STOP to end them.",
        "de": "Sie erhalten wieder Nachrichten von hier. Mit STOP enden sie.",
        "fr": "Vous recevez de nouveau des messages. Envoyez STOP pour les arrêter.",
        "es": "Vuelve a recibir mensajes. Envíe STOP para terminar.",
    },
    Keyword.HELP: {
        "en": "A program, {agent}, answers here. Send STOP to end its messages, START to go on.",
        "de": "Hier antwortet ein Programm, {agent}. STOP beendet seine Nachrichten, mit START "
        "geht es weiter.",
        "fr": "Un programme, {agent}, répond ici. STOP arrête ses messages, START les reprend.",
        "es": "Aquí responde un programa, {agent}. STOP termina sus mensajes, START los reanuda.",
    },
}


def keyword_in(text: str) -> Keyword | None:
    """The keyword that a message is as a whole, None for any other."""
    known = _KNOWN.get(_bare(text))
    return known[0] if known is not None else None


def told(text: str, agent: str) -> str:
    """What is answered to a keyword, in its own language as far as we have that."""
    keyword, language = _KNOWN[_bare(text)]
    said = _SAID[keyword]
    return said.get(language, said["en"]).format(agent=agent)


def _bare(text: str) -> str:
    return text.strip().strip("\"'").rstrip(".!?\u061f\u3002\uff01 ").casefold()
