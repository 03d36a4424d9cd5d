// Signatures only: see ../README.md. The numbers of constants are not Apple's, and the kernel says nothing.
@_exported import Glibc

public typealias integer_t = Int32
public typealias natural_t = UInt32
public typealias kern_return_t = Int32
public typealias mach_port_t = UInt32
public typealias mach_msg_type_number_t = UInt32
public typealias task_flavor_t = UInt32
public typealias task_info_t = UnsafeMutablePointer<integer_t>

public var KERN_SUCCESS: Int32 { 0 }
public var TASK_VM_INFO: Int32 { 0 }
public var mach_task_self_: mach_port_t { 0 }

public struct task_vm_info_data_t {
    public init() {}
    public var external: UInt64 = 0
    public var resident_size_peak: UInt64 = 0
    public var phys_footprint: UInt64 = 0
}

public func task_info(
    _ target: mach_port_t, _ flavor: task_flavor_t, _ info: task_info_t!,
    _ count: UnsafeMutablePointer<mach_msg_type_number_t>!
) -> kern_return_t { 1 }
