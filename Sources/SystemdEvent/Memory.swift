import CSystemd

/// Has every thread take memory from one heap. By default each new thread has one of its own, which stays when the thread has ended,
/// as large as it was; here threads come one at a time and are short. To be called before there is any.
public func useOneHeap() { mallopt(M_ARENA_MAX, 1) }

/// Gives memory that is free inside this process back to the system. For after work that took much of it; the allocator keeps
/// that for more of the kind.
public func returnFreeMemory() { malloc_trim(0) }
