"""Who is out there, what each client can do, and who may take part."""
