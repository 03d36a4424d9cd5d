import Accessibility
import SmolshipCore
import SwiftUI

struct ChatView: View {
    @Bindable var chat: ChatModel
    let choose: @MainActor () -> Void
    @FocusState private var typing: Bool

    var body: some View {
        NavigationStack {
            Group {
                if chat.bundle == nil, chat.turns.isEmpty {
                    ContentUnavailableView {
                        Label("No bundle", systemImage: "shippingbox")
                    } description: {
                        Text("Bring one that smolship exported to this device, and choose it.")
                    } actions: {
                        Button("Bundles", action: choose)
                    }
                } else {
                    conversation
                }
            }
            .navigationTitle(chat.bundle?.root.lastPathComponent ?? "Chat")
            .navigationBarTitleDisplayMode(.inline)
            .toolbar {
                ToolbarItem(placement: .primaryAction) {
                    Button("New chat", systemImage: "square.and.pencil", action: chat.newChat)
                        .disabled(chat.isBusy || chat.turns.isEmpty)
                }
            }
            .alert(problem: $chat.problem)
        }
    }

    private var conversation: some View {
        VStack(spacing: 0) {
            MeterBar(chat: chat)
            Divider()
            ScrollView {
                LazyVStack(alignment: .leading, spacing: 16) {
                    ForEach(chat.turns) { TurnView(turn: $0) }
                }
                .padding()
            }
            .defaultScrollAnchor(.bottom)
            .scrollDismissesKeyboard(.interactively)
            Divider()
            composer
        }
        .onChange(of: chat.state) { old, new in
            if old == .answering, new != .answering { announceEnd() }
        }
    }

    private var composer: some View {
        HStack(alignment: .bottom, spacing: 12) {
            TextField("Message", text: $chat.draft, axis: .vertical)
                .lineLimit(1...6)
                .textFieldStyle(.roundedBorder)
                .focused($typing)
                .accessibilityLabel("Your message")
            if chat.isBusy {
                Button("Stop", systemImage: "stop.circle.fill") { chat.stop("Stopped.") }
                    .labelStyle(.iconOnly)
                    .font(.title)
                    .accessibilityHint("Ends the answer; what was said so far stays")
            } else {
                Button("Send", systemImage: "arrow.up.circle.fill") {
                    typing = false
                    chat.send()
                }
                .labelStyle(.iconOnly)
                .font(.title)
                .disabled(!chat.canSend)
                .keyboardShortcut(.return, modifiers: .command)
            }
        }
        .padding()
    }

    /// VoiceOver does not read a text that grows: it is told when the answer has ended, and reads it when it is touched.
    private func announceEnd() {
        let answer = chat.turns.last?.text ?? ""
        AccessibilityNotification.Announcement(answer.isEmpty ? "No answer" : "Answer: \(answer)").post()
    }
}

/// A question or an answer.
private struct TurnView: View {
    let turn: Turn

    var body: some View {
        VStack(alignment: .leading, spacing: 4) {
            Text(turn.role == .user ? "You" : "Model")
                .font(.caption.bold())
                .foregroundStyle(.secondary)
            if turn.isOpen, turn.text.isEmpty {
                ProgressView()
                    .accessibilityLabel("Waiting for the first word")
            } else {
                Text(verbatim: turn.text)
                    .textSelection(.enabled)
            }
            if !turn.note.isEmpty {
                Text(turn.note)
                    .font(.footnote)
                    .foregroundStyle(.secondary)
            }
        }
        .frame(maxWidth: .infinity, alignment: .leading)
        .accessibilityElement(children: .combine)
        .accessibilityAddTraits(turn.isOpen ? .updatesFrequently : [])
    }
}

/// Speed of the last answer, memory and temperature; each second anew.
private struct MeterBar: View {
    let chat: ChatModel
    @State private var device = DeviceState.now

    var body: some View {
        VStack(alignment: .leading, spacing: 2) {
            Text(status)
                .font(.footnote)
            Text(speed)
                .font(.footnote.monospacedDigit())
            Label(device.spoken, systemImage: device.thermal == .nominal ? "thermometer.low" : "thermometer.high")
                .font(.footnote.monospacedDigit())
                .foregroundStyle(
                    device.thermal == .critical || device.thermal == .serious ? Color.red : Color.secondary)
        }
        .frame(maxWidth: .infinity, alignment: .leading)
        .padding(.horizontal)
        .padding(.vertical, 6)
        .accessibilityElement(children: .combine)
        .task {
            while !Task.isCancelled {
                device = .now
                try? await Task.sleep(for: .seconds(1))
            }
        }
    }

    private var status: String {
        let engine = chat.kind?.title ?? ""
        if chat.isHeld { return "A benchmark is running" }
        return switch chat.state {
        case .empty: "No bundle: choose one under Bundles"
        case .idle: "\(engine), not loaded: the next message loads the model"
        case .opening(let what): "\(what) …"
        case .ready: "\(engine), ready"
        case .answering: "\(engine), answering …"
        }
    }

    /// Of the last answer: time to first token, tokens a second after it, tokens of the prompt that the cache held.
    private var speed: String {
        guard let ending = chat.ending else { return chat.state == .answering ? chat.running : "No answer yet" }
        let number = FloatingPointFormatStyle<Double>.number.precision(.fractionLength(1))
        let parts = [
            ending.ttftSeconds.map {
                "first token after \((1000 * $0).formatted(number.precision(.fractionLength(0)))) ms"
            },
            ending.tokensPerSecond.map { "\($0.formatted(number)) tokens/s" },
            ending.tokens.map { "\($0) tokens" },
            ending.promptTokens.map { "\($0) fed" },
            chat.reused > 0 ? "\(chat.reused) from the cache" : nil,
        ]
        return parts.compactMap { $0 }.joined(separator: ", ")
    }
}
