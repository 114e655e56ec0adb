"""Agents: functions from evidence to proposals. They see nothing else and touch nothing."""
