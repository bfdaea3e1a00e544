"""Containers of the docker engine on this machine: the only room that speaks to it."""
