import Darwin
import Foundation
import os

/// What the system says of this process and of the device.
struct DeviceState: Equatable, Sendable {
    /// Bytes that the system counts against the app: for these it ends it.
    var footprint: Int?
    /// Bytes that the app may still take.
    var available: Int?
    var thermal: ProcessInfo.ThermalState

    static var now: DeviceState {
        let available = os_proc_available_memory()
        return DeviceState(
            footprint: TaskMemory.now?.footprint, available: available > 0 ? available : nil,
            thermal: ProcessInfo.processInfo.thermalState)
    }

    /// One line for people, and for VoiceOver.
    var spoken: String {
        let memory = footprint.map { "memory \(megabytes($0))" } ?? "memory unknown"
        let left = available.map { ", \(megabytes($0)) left" } ?? ""
        return "\(memory)\(left), \(thermal.words)"
    }
}

extension ProcessInfo.ThermalState {
    /// Apple's four states.
    var words: String {
        switch self {
        case .nominal: "cool"
        case .fair: "warm"
        case .serious: "hot, slowed down"
        case .critical: "very hot, slowed down"
        @unknown default: "thermal state unknown"
        }
    }
}

/// Memory of this process as the kernel counts it, in bytes.
struct TaskMemory: Equatable, Sendable {
    /// What counts against the limit: memory that only this process has, the compressed included.
    var footprint: Int
    /// Pages of mapped files, which the system can drop and read again.
    var fileBacked: Int
    /// The most that was resident, of both together.
    var peakResident: Int

    static var now: TaskMemory? {
        var info = task_vm_info_data_t()
        var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<integer_t>.size)
        let result = withUnsafeMutablePointer(to: &info) { pointer in
            pointer.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
                task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
            }
        }
        guard result == KERN_SUCCESS else { return nil }
        return TaskMemory(
            footprint: Int(info.phys_footprint), fileBacked: Int(info.external),
            peakResident: Int(info.resident_size_peak))
    }
}

/// The device's model as Apple names it inside, such as iPhone16,1.
var machineName: String {
    var system = utsname()
    guard uname(&system) == 0 else { return "unknown" }
    return withUnsafeBytes(of: &system.machine) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
}
