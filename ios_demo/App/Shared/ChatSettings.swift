import Foundation
import SmolshipCore

/// What a person chose for chats; kept in the app's settings.
struct ChatSettings: Codable, Equatable, Sendable {
    enum Choice: String, CaseIterable, Codable, Sendable {
        case recommended, greedy, own
    }

    var choice = Choice.recommended
    var temperature = 0.7
    var topP = 0.95
    var thinking = false
    var system = ""
    var maxTokens = 1024
    var units = ComputeUnits.cpuAndGPU

    /// What is drawn by. ExecuTorch's runner gets the temperature alone, as the settings say.
    func sampling(recommended: Sampling, _ kind: EngineKind) throws -> Sampling {
        let wanted =
            switch choice {
            case .recommended: recommended
            case .greedy: Sampling.greedy
            case .own: try Sampling(temperature: temperature, topP: topP)
            }
        return kind == .executorchRunner ? try Sampling(temperature: wanted.temperature) : wanted
    }

    /// The system prompt, where there is one.
    var opening: [Message] {
        system.isEmpty ? [] : [Message(.system, system)]
    }

    private static let key = "chat"

    static func load(_ defaults: UserDefaults = .standard) -> ChatSettings {
        guard let data = defaults.data(forKey: key) else { return ChatSettings() }
        return (try? JSONDecoder().decode(ChatSettings.self, from: data)) ?? ChatSettings()
    }

    func save(_ defaults: UserDefaults = .standard) {
        defaults.set(try? JSONEncoder().encode(self), forKey: ChatSettings.key)
    }
}
