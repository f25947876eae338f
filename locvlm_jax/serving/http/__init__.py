"""The server as HTTP sees it: routes, requests, streams, the process."""
