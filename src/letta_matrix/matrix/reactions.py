"""The reactions that say something to the bridge; chat clients of ours offer the same."""

ALLOW, DENY, ALWAYS = "✅", "❌", "♾️"
"""They answer an approval."""

ASK_AGAIN = "🔁"
"""On an offer: the agent is asked again."""

STOP = "🛑"
"""On a message, or on the reply to it: its turn is stopped."""
