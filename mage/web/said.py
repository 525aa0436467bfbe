"""Sentences under the controls, which screen readers read out when they change."""

from html import escape


def said(text: str) -> str:
    """HTML of a sentence."""
    return f'<p class="said" role="status">{escape(text)}</p>'
