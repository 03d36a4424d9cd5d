import SmolshipCore
import SwiftUI
import UIKit

@main
struct SmolshipApp: App {
    @State private var library = Library()
    @State private var chat = ChatModel()
    @State private var bench = BenchModel()
    @Environment(\.scenePhase) private var phase

    var body: some Scene {
        WindowGroup {
            RootView(library: library, chat: chat, bench: bench)
                .task {
                    library.refresh()
                    chat.restore(library.bundle)
                }
                .onReceive(NotificationCenter.default.publisher(for: UIApplication.didReceiveMemoryWarningNotification))
            { _ in
                chat.memoryWarning()
                bench.memoryWarning()
            }
                .onChange(of: phase) { _, phase in
                    switch phase {
                    case .background:
                        chat.leavingScreen()
                        bench.leavingScreen()
                    case .active:
                        library.refresh()  // Files or Finder may have brought something
                    default:
                        break
                    }
                }
        }
    }
}

/// The four screens.
struct RootView: View {
    let library: Library
    let chat: ChatModel
    let bench: BenchModel
    @State private var screen = Screen.chat

    enum Screen: Hashable {
        case chat, bundles, bench, settings
    }

    var body: some View {
        TabView(selection: $screen) {
            ChatView(chat: chat, choose: { screen = .bundles })
                .tabItem { Label("Chat", systemImage: "bubble.left.and.bubble.right") }
                .tag(Screen.chat)
            BundlesView(library: library, chat: chat, chosen: { screen = .chat })
                .tabItem { Label("Bundles", systemImage: "shippingbox") }
                .tag(Screen.bundles)
            BenchView(bench: bench, library: library, chat: chat)
                .tabItem { Label("Benchmark", systemImage: "gauge.with.needle") }
                .tag(Screen.bench)
            SettingsView(chat: chat)
                .tabItem { Label("Settings", systemImage: "gearshape") }
                .tag(Screen.settings)
        }
        .onChange(of: bench.running == nil) { _, idle in chat.isHeld = !idle }
    }
}

extension View {
    /// Shows what went wrong, once, as the command line would say it.
    func alert(problem: Binding<Refusal?>) -> some View {
        alert(problem.wrappedValue?.what ?? "", isPresented: problem.isShown, presenting: problem.wrappedValue) { _ in
            Button("OK", role: .cancel) {}
        } message: { problem in
            Text(problem.details)
        }
    }
}

extension Refusal? {
    fileprivate var isShown: Bool {
        get { self != nil }
        set { if !newValue { self = nil } }
    }
}

extension Refusal {
    /// What was found and expected, and what to do, each on a line.
    var details: String {
        let lines = [got.map { "Found: \($0)" }, expected.map { "Expected: \($0)" }, todo.map { "To do: \($0)" }]
        return lines.compactMap { $0 }.joined(separator: "\n")
    }
}
