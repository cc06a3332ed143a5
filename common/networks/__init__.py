"""Networks of images that others made: families of libraries, and a user's own."""
