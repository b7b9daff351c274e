"""HTTP without sockets: a Request in, a Response or a StreamResponse out; the same for every cloud."""
