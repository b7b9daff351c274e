"""What Kindling is compared with."""
