"""HTTP without sockets: a Request in, a Response or a StreamResponse out, on every cloud."""
