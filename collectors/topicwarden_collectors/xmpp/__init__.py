"""XMPP servers."""
