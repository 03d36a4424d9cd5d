import Foundation

/// A server's answer to a request for a file.
public struct HttpAnswer: Sendable {
    /// 200: the whole file; 206: from `start` on; others as HTTP has them.
    public let status: Int
    /// Where the bytes begin in the file.
    public let start: Int
    /// Bytes of the whole file, where the server says.
    public let total: Int?
    /// The bytes, which may break off: then it throws.
    public let body: AsyncThrowingStream<[UInt8], any Error>

    public init(status: Int, start: Int = 0, total: Int? = nil, body: AsyncThrowingStream<[UInt8], any Error>) {
        (self.status, self.start, self.total, self.body) = (status, start, total, body)
    }
}

/// What asks a server for files.
public protocol Http: Sendable {
    /// A file from byte `start` on, by the header Range where that is not 0. What is told apart by a status is no error;
    /// thrown is what comes before an answer: no network, no such server.
    func get(_ url: URL, from start: Int) async throws -> HttpAnswer
}

/// The first and the total number of the header Content-Range: `bytes 200-999/1000`.
public func contentRange(_ header: String) -> (start: Int, total: Int?)? {
    guard let match = header.wholeMatch(of: /bytes (\d+)-\d+\/(\d+|\*)/), let start = Int(match.1) else { return nil }
    return (start, Int(match.2))
}
