"""What hosts were seen to do: processes, connections, and what was spoken on them; and how these belong together."""

from topicwarden.hosts.model import Dialled, Endpoint, Executed, Exited, HostEvent, Process, Spoke, Spoken

__all__ = ["Dialled", "Endpoint", "Executed", "Exited", "HostEvent", "Process", "Spoke", "Spoken"]
