import Foundation

@testable import SmolshipCore

/// A server of files, with the faults that servers have.
actor Server: Http {
    var files: [String: [UInt8]]
    private(set) var asked: [String] = []
    /// Of the next answers for a path: how they go wrong.
    var faults: [String: [Fault]] = [:]
    private let piece: Int

    enum Fault: Sendable {
        case breaksOff(after: Int)
        case ends(after: Int)
        case status(Int)
        case ignoresRange
        case wrongStart(Int)
        case altered
        case longer
        case total(Int)
        case unreachable
    }

    init(_ files: [String: [UInt8]], piece: Int = 100) throws {
        self.files = files.merging([Manifest.name: try manifest(of: files)]) { $1 }
        self.piece = piece
    }

    func set(_ path: String, _ faults: [Fault]) { self.faults[path] = faults }

    func replace(_ files: [String: [UInt8]]) throws {
        self.files = files.merging([Manifest.name: try manifest(of: files)]) { $1 }
    }

    /// What was asked for since the last time: path, and "@" and where it began if not at 0.
    func takeAsked() -> [String] {
        defer { asked = [] }
        return asked
    }

    func get(_ url: URL, from start: Int) throws -> HttpAnswer {
        let path = String(url.path.dropFirst("/bundle/".count))
        asked.append(start > 0 ? "\(path)@\(start)" : path)
        let fault = faults[path]?.isEmpty == false ? faults[path]!.removeFirst() : nil
        guard let bytes = files[path] else { return HttpAnswer(status: 404, body: body([])) }
        switch fault {
        case nil: return whole(bytes, start)
        case .breaksOff(let count):
            return whole(bytes, start, body: body(bytes.dropFirst(start).prefix(count), fails: true))
        case .ends(let count): return whole(bytes, start, body: body(bytes.dropFirst(start).prefix(count)))
        case .status(let status): return HttpAnswer(status: status, body: body([1, 2, 3]))
        case .ignoresRange: return whole(bytes, 0)
        case .wrongStart(let place):
            return HttpAnswer(status: 206, start: place, total: bytes.count, body: body(bytes[place...]))
        case .altered: return whole(bytes, start, body: body(bytes.map { $0 ^ 1 }.dropFirst(start)))
        case .longer: return HttpAnswer(status: 200, total: nil, body: body(bytes + [1]))
        case .total(let total): return HttpAnswer(status: 200, total: total, body: body(bytes[...]))
        case .unreachable: throw URLError(.cannotConnectToHost)
        }
    }

    private func whole(_ bytes: [UInt8], _ start: Int, body: AsyncThrowingStream<[UInt8], any Error>? = nil)
        -> HttpAnswer
    {
        HttpAnswer(
            status: start > 0 ? 206 : 200, start: start, total: bytes.count,
            body: body ?? self.body(bytes.dropFirst(start)))
    }

    private func body(_ bytes: ArraySlice<UInt8>, fails: Bool = false) -> AsyncThrowingStream<[UInt8], any Error> {
        AsyncThrowingStream { stream in
            for start in stride(from: 0, to: bytes.count, by: piece) {
                stream.yield(Array(bytes.dropFirst(start).prefix(piece)))
            }
            stream.finish(throwing: fails ? URLError(.networkConnectionLost) : nil)
        }
    }
}
