"""Adapter for endpoints that speak the OpenAI API, where every model is an agent."""

from letta_matrix.runtimes.openai_compatible.adapter import OpenAICompatible

__all__ = ["OpenAICompatible"]
