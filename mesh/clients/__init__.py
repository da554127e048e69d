"""One client a service; to call a service, import its client."""
