"""In Chromium: `make test-browser`. They run in the app's environment; what trains runs in the main one."""
