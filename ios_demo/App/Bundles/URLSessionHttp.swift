import Foundation
import SmolshipCore

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// HTTP by URLSession. Bytes are handed on as they come; nothing is kept in a cache.
final class URLSessionHttp: NSObject, Http, URLSessionDataDelegate, @unchecked Sendable {
    private let lock = NSLock()
    private var waiting: [Int: Waiting] = [:]  // by the task's number; under the lock

    private struct Waiting {
        var answer: CheckedContinuation<HttpAnswer, any Error>?
        let body: AsyncThrowingStream<[UInt8], any Error>.Continuation
        let stream: AsyncThrowingStream<[UInt8], any Error>
    }

    private lazy var session: URLSession = {
        let configuration = URLSessionConfiguration.ephemeral
        configuration.requestCachePolicy = .reloadIgnoringLocalCacheData
        configuration.timeoutIntervalForRequest = 30  // without a byte
        return URLSession(configuration: configuration, delegate: self, delegateQueue: nil)
    }()

    /// What is under way is broken off.
    func close() { session.invalidateAndCancel() }

    func get(_ url: URL, from start: Int) async throws -> HttpAnswer {
        guard ["http", "https"].contains(url.scheme?.lowercased() ?? "") else {
            throw Refusal("the address cannot be used", got: url.absoluteString, expected: "http:// or https://")
        }
        var request = URLRequest(url: url)
        request.setValue("identity", forHTTPHeaderField: "Accept-Encoding")  // sizes and ranges are the file's
        if start > 0 { request.setValue("bytes=\(start)-", forHTTPHeaderField: "Range") }
        let task = session.dataTask(with: request)
        let (stream, body) = AsyncThrowingStream<[UInt8], any Error>.makeStream()
        body.onTermination = { _ in task.cancel() }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { answer in
                lock.withLock { waiting[task.taskIdentifier] = Waiting(answer: answer, body: body, stream: stream) }
                task.resume()
            }
        } onCancel: {
            task.cancel()
        }
    }

    func urlSession(
        _ session: URLSession, dataTask: URLSessionDataTask, didReceive response: URLResponse,
        completionHandler: @escaping (URLSession.ResponseDisposition) -> Void
    ) {
        let found = lock.withLock { () -> Waiting? in
            let found = waiting[dataTask.taskIdentifier]
            waiting[dataTask.taskIdentifier]?.answer = nil
            return found
        }
        if let found { found.answer?.resume(returning: URLSessionHttp.answer(response, found.stream)) }
        completionHandler(found == nil ? .cancel : .allow)
    }

    /// Redirects are followed, but never from HTTPS to what anybody on the way can alter. One that is not followed is the
    /// answer, with its status.
    func urlSession(
        _ session: URLSession, task: URLSessionTask, willPerformHTTPRedirection response: HTTPURLResponse,
        newRequest request: URLRequest, completionHandler: @escaping (URLRequest?) -> Void
    ) {
        let follows = URLSessionHttp.follows(from: task.currentRequest?.url, to: request.url)
        completionHandler(follows ? request : nil)
    }

    static func follows(from old: URL?, to new: URL?) -> Bool {
        switch (old?.scheme?.lowercased(), new?.scheme?.lowercased()) {
        case (_, "https"), ("http", "http"): true
        default: false
        }
    }

    func urlSession(_ session: URLSession, dataTask: URLSessionDataTask, didReceive data: Data) {
        lock.withLock { waiting[dataTask.taskIdentifier]?.body }?.yield([UInt8](data))
    }

    func urlSession(_ session: URLSession, task: URLSessionTask, didCompleteWithError error: (any Error)?) {
        guard let found = lock.withLock({ waiting.removeValue(forKey: task.taskIdentifier) }) else { return }
        found.answer?.resume(throwing: error ?? URLError(.badServerResponse))
        found.body.finish(throwing: error)
    }

    private static func answer(
        _ response: URLResponse, _ body: AsyncThrowingStream<[UInt8], any Error>
    ) -> HttpAnswer {
        let http = response as? HTTPURLResponse
        let status = http?.statusCode ?? 0
        let length = response.expectedContentLength >= 0 ? Int(response.expectedContentLength) : nil
        guard status == 206 else { return HttpAnswer(status: status, total: status == 200 ? length : nil, body: body) }
        guard let range = http?.value(forHTTPHeaderField: "Content-Range").flatMap(contentRange) else {
            return HttpAnswer(status: 0, body: body)  // a part of which nobody knows where it lies
        }
        return HttpAnswer(status: status, start: range.start, total: range.total, body: body)
    }
}
