import Foundation
import Observation
import SmolshipCore

/// The chat screen's state: one conversation with one bundle's model.
@MainActor
@Observable
final class ChatModel {
    enum State: Equatable {
        /// No bundle is chosen.
        case empty
        /// The model is not loaded; the next question loads it.
        case idle
        case opening(String)
        case ready
        case answering
    }

    private(set) var state = State.empty
    private(set) var turns: [Turn] = []
    private(set) var bundle: ModelBundle?
    private(set) var kind: EngineKind?
    /// Of the last answer.
    private(set) var ending: Ending?
    private(set) var reused = 0
    /// Speed of the answer under way, by its pieces of text.
    private(set) var running = ""
    var draft = ""
    /// What went wrong, to be shown once.
    var problem: Refusal?
    var settings = ChatSettings.load() {
        didSet { if settings != oldValue { settingsChanged() } }
    }

    /// A benchmark runs: nothing else is to compute.
    var isHeld = false

    private var live: LiveChat?
    private var work: Task<Void, Never>?
    private var why = ""  // the answer under way is ended
    private var round = 0  // of chats: what is under way for an earlier one is let go
    private var isRestored = false

    var isBusy: Bool { if case .opening = state { true } else { state == .answering } }
    var canSend: Bool {
        bundle != nil && !isBusy && !isHeld && !draft.trimmingCharacters(in: .whitespacesAndNewlines).isEmpty
    }

    /// Talk with another bundle, or by another engine: a new chat.
    func choose(_ bundle: ModelBundle, _ kind: EngineKind) {
        letGo()
        (self.bundle, self.kind) = (bundle, kind)
        (turns, ending, reused) = ([], nil, 0)
        state = .idle
        save()
    }

    /// The bundle was removed.
    func forget(_ name: String) {
        guard bundle?.root.lastPathComponent == name else { return }
        letGo()
        (bundle, kind, state) = (nil, nil, .empty)
        save()
    }

    private func letGo() {
        stop("")
        unload()
        round += 1
    }

    func send() {
        guard canSend, let bundle, let kind else { return }
        let question = draft.trimmingCharacters(in: .whitespacesAndNewlines)
        let earlier = Turn.messages(turns)
        draft = ""
        why = ""
        (ending, reused, running) = (nil, 0, "")
        turns += [Turn(role: .user, text: question), Turn(role: .assistant, text: "", isOpen: true)]
        save()
        state = live == nil ? .opening("Opening the bundle") : .answering
        let round = round
        work = Task {
            do {
                let live = try await opened(bundle, kind, earlier)
                guard round == self.round else { return live.close() }
                self.live = live
                state = .answering
                try await listen(to: live.ask(question, maxTokens: settings.maxTokens), round)
            } catch {
                if round == self.round { ended(with: error) }
            }
            guard round == self.round else { return }
            state = live == nil ? .idle : .ready
            save()
        }
    }

    /// End the answer, or the opening; `why` is said below it.
    func stop(_ why: String) {
        guard isBusy else { return }
        self.why = why
        if state == .answering { live?.stop() } else { work?.cancel() }
    }

    func newChat() {
        guard !isBusy else { return }
        (turns, ending, reused) = ([], nil, 0)
        live?.reset()
        save()
    }

    /// Give the model's memory back. The next question loads it again, and the conversation goes on.
    func unload() {
        live?.close()
        live = nil
        if state == .ready { state = .idle }
    }

    /// The system is short of memory: it ends apps that do not give theirs back.
    func memoryWarning() {
        if case .opening = state {
            problem = Refusal(
                "the system is short of memory, and the model was not loaded",
                todo: "close other apps, or take a smaller model")
        }
        stop("Ended: the system is short of memory. The model was unloaded.")
        unload()
    }

    /// The GPU does not compute for an app that is not on the screen.
    func leavingScreen() {
        if state == .answering { stop("Ended: the app left the screen.") }
        save()
    }

    /// Go on with what was saved; `find` looks a bundle up.
    func restore(_ find: (String) -> ModelBundle?) {
        guard !isRestored else { return }
        isRestored = true
        do {
            guard let saved = try SavedChat.load() else { return }
            (turns, draft, kind) = (saved.turns, saved.draft, saved.kind)
            bundle = saved.bundle.flatMap(find)
            if let name = saved.bundle, bundle == nil {
                problem = Refusal(
                    "the bundle of the last chat is not here any more", got: name, todo: "choose another one")
            }
        } catch {
            problem = Refusal(of: error)
        }
        state = bundle != nil && kind != nil ? .idle : .empty
    }

    func save() {
        let name = bundle?.root.lastPathComponent
        do {
            try SavedChat(bundle: name, kind: kind, turns: turns, draft: draft).save()
        } catch {
            problem = Refusal(
                "the conversation cannot be saved", got: error.localizedDescription, todo: "free some storage")
        }
    }

    private func opened(_ bundle: ModelBundle, _ kind: EngineKind, _ earlier: [Message]) async throws -> LiveChat {
        if let live { return live }
        let settings = settings
        let said: @Sendable (String) -> Void = { text in
            Task { @MainActor [weak self] in
                if let self, case .opening = self.state { self.state = .opening(text) }
            }
        }
        let opening = Opening(bundle: bundle, kind: kind, units: settings.units, said: said)
        let task = Task.detached(priority: .userInitiated) {
            try await opening.chat(settings, settings.opening + earlier)
        }
        let live = try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
        guard !Task.isCancelled else {
            live.close()
            throw CancellationError()
        }
        return live
    }

    /// Pieces come up to a hundred times a second; the screen is told twenty times.
    private func listen(to events: AsyncThrowingStream<LiveChat.Event, any Error>, _ round: Int) async throws {
        var held = ""
        let start = ContinuousClock.now
        var (shown, kept) = (start, start)
        var first: ContinuousClock.Instant?
        var pieces = 0
        do {
            for try await event in events {
                guard round == self.round else { return }
                switch event {
                case .piece(let text):
                    held += text
                    pieces += 1
                    if first == nil { first = .now }
                    guard shown.duration(to: .now) > .milliseconds(50) else { continue }
                    add(&held)
                    shown = .now
                    running = speed(pieces, first ?? shown, start, shown)
                    if kept.duration(to: shown) > .seconds(5) {
                        save()
                        kept = shown
                    }
                case .ended(let ending, let reused):
                    add(&held)
                    (self.ending, self.reused) = (ending, reused)
                    close(note: why.isEmpty ? ending.words : why)
                }
            }
        } catch {
            if round == self.round { add(&held) }
            throw error
        }
    }

    private func speed(
        _ pieces: Int, _ first: ContinuousClock.Instant, _ start: ContinuousClock.Instant,
        _ now: ContinuousClock.Instant
    ) -> String {
        let (wait, span) = (start.duration(to: first) / .milliseconds(1), first.duration(to: now) / .seconds(1))
        let rate = span > 0 ? ", about \(Int((Double(pieces - 1) / span).rounded())) tokens/s" : ""
        return "first word after \(Int(wait.rounded())) ms\(rate)"
    }

    private func add(_ text: inout String) {
        if let last = turns.indices.last { turns[last].text += text }
        text = ""
    }

    /// An answer without a word leaves no trace: the question goes back to where it was typed.
    private func close(note: String) {
        guard let last = turns.indices.last, turns[last].isOpen else { return }
        turns[last].isOpen = false
        turns[last].note = note
        if turns[last].text.isEmpty, ending?.end != .stop { takeBack() }
    }

    private func takeBack() {
        guard turns.count >= 2 else { return }
        if draft.isEmpty { draft = turns[turns.count - 2].text }
        turns.removeLast(2)
    }

    private func ended(with error: any Error) {
        if !(error is CancellationError) { problem = Refusal(of: error) }
        close(note: "Ended by an error.")
    }

    private func settingsChanged() {
        settings.save()
        stop("Ended: the settings were changed.")
        unload()
    }
}

extension Refusal {
    /// Any error as one that can be shown.
    init(of error: any Error) {
        self = error as? Refusal ?? Refusal("something went wrong", got: error.localizedDescription)
    }
}

extension Ending {
    /// How an answer ended, where that is worth a word.
    var words: String {
        switch end {
        case .stop: ""
        case .maxTokens: "Ended: it reached the most tokens that the settings allow."
        case .context: "Ended: the context is full. Begin a new chat."
        case .interrupted: "Stopped."
        }
    }
}
