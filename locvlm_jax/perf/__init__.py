"""What programs cost: FLOPs, collectives, machines, traces."""
