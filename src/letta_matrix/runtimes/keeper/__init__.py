"""The keeper: a small process that holds the WebSocket to an App Server.

An App Server ties a running turn to the client's connection. The keeper owns that
connection and outlives a killed bridge, so that turns go on and can be followed again.
"""
