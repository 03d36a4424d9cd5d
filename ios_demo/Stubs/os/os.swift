// Signatures only: see ../README.md.

/// Set by a test; 0 says nothing, as in the simulator.
nonisolated(unsafe) public var toyAvailableMemory = 0

public func os_proc_available_memory() -> Int { toyAvailableMemory }
