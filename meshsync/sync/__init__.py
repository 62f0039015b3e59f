"""Replication: sessions over connections, subscriptions, priorities."""
