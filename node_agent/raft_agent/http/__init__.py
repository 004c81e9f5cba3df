"""Metrics, health and the status page over HTTP. Imported only when server.http_addr is set."""
