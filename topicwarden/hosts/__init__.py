"""What belongs together on a host: processes and their numbers, connections and broker sessions, command lines."""
