"""Generated code, by the names of the protobuf packages."""
