import CSystemd

/// Gives memory that is free inside this process back to the system. For after work that took much of it, once; the allocator
/// keeps that for more of the kind, in an arena for every thread that there was.
public func returnFreeMemory() { malloc_trim(0) }
