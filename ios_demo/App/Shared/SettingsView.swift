import SmolshipCore
import SwiftUI

struct SettingsView: View {
    let chat: ChatModel
    @State private var settings = ChatSettings.load()

    var body: some View {
        NavigationStack {
            Form {
                Section {
                    Picker("Sampling", selection: $settings.choice) {
                        Text("As the model's makers say").tag(ChatSettings.Choice.recommended)
                        Text("Greedy").tag(ChatSettings.Choice.greedy)
                        Text("My own").tag(ChatSettings.Choice.own)
                    }
                    if settings.choice == .own {
                        amount("Temperature", $settings.temperature, in: 0...2)
                        amount("Top-p", $settings.topP, in: 0.05...1)
                    }
                    Stepper(value: $settings.maxTokens, in: 64...8192, step: 64) {
                        LabeledContent("Most tokens of an answer", value: settings.maxTokens.formatted())
                    }
                } footer: {
                    Text(
                        "ExecuTorch's runner samples by temperature alone: top-p, top-k, min-p and the repetition penalty are left out there."
                    )
                }
                Section {
                    Toggle("Thinking", isOn: $settings.thinking)
                    TextField("System prompt", text: $settings.system, axis: .vertical)
                        .lineLimit(1...6)
                } footer: {
                    Text("Thinking is for models whose chat template asks for it; others do not look at it.")
                }
                Section {
                    Picker("Core ML computes on", selection: $settings.units) {
                        ForEach(ComputeUnits.allCases, id: \.self) { Text(verbatim: $0.rawValue) }
                    }
                } footer: {
                    Text(
                        "The packages are made for the GPU. Stateful int4 programs are known to fail on the Neural Engine."
                    )
                }
                Section {
                    LabeledContent("Device", value: machineName)
                    LabeledContent("System", value: ProcessInfo.processInfo.operatingSystemVersionString)
                }
            }
            .navigationTitle("Settings")
            .onDisappear { chat.settings = settings }
        }
    }

    private func amount(_ title: LocalizedStringKey, _ value: Binding<Double>, in range: ClosedRange<Double>)
        -> some View
    {
        VStack(alignment: .leading) {
            LabeledContent(title) { Text(value.wrappedValue, format: .number.precision(.fractionLength(2))) }
            Slider(value: value, in: range, step: 0.05) { Text(title) }
        }
    }
}
