"""From observed traffic to a draft of a policy, and a list of what a person should look at: pure, no I/O, no clock."""
