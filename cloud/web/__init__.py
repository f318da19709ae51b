"""The dashboard: pages made on the server, with little JavaScript."""
