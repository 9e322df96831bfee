"""What stands between reading and painting: voken rows, connectors, interleaved decoding, adapters."""
