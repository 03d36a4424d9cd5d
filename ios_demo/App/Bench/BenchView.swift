import SmolshipCore
import SwiftUI
import UniformTypeIdentifiers

struct BenchView: View {
    @Bindable var bench: BenchModel
    let library: Library
    let chat: ChatModel
    @State private var picking = false

    var body: some View {
        NavigationStack {
            List {
                Section {
                    Button("Choose a plan", systemImage: "doc.text") { picking = true }
                        .disabled(bench.running != nil)
                    if let plan = bench.plan {
                        LabeledContent("Plan", value: bench.planName)
                        LabeledContent("Asks for", value: plan.purpose)
                        LabeledContent("Target", value: plan.target)
                    }
                } header: {
                    Text("Plan")
                } footer: {
                    Text(
                        "A JSON file that smolship wrote: see the demo's README. Charge the device, close other apps, and leave this one on the screen."
                    )
                }
                if let stage = bench.running {
                    running(stage)
                } else if bench.plan != nil {
                    bundles
                }
                if !bench.notes.isEmpty {
                    Section("Last run") { ForEach(bench.notes, id: \.self) { Text(verbatim: $0) } }
                }
                Section("Results") {
                    if bench.results.isEmpty {
                        Text("None yet.")
                            .foregroundStyle(.secondary)
                    }
                    ForEach(bench.results, id: \.self) { url in
                        HStack {
                            Text(verbatim: url.lastPathComponent)
                            Spacer()
                            ShareLink(item: url)
                                .labelStyle(.iconOnly)
                                .accessibilityLabel("Share \(url.lastPathComponent)")
                        }
                    }
                    .onDelete(perform: bench.remove)
                }
            }
            .navigationTitle("Benchmark")
            .task { bench.list() }
            .fileImporter(isPresented: $picking, allowedContentTypes: [.json]) { picked in
                switch picked {
                case .success(let url): bench.choose(url)
                case .failure(let error): bench.problem = Refusal(of: error)
                }
            }
            .alert(problem: $bench.problem)
        }
    }

    private var bundles: some View {
        Section("Run it on") {
            ForEach(usable, id: \.digest) { bundle in
                let mismatch = bench.mismatch(bundle)
                VStack(alignment: .leading, spacing: 4) {
                    Button(bundle.root.lastPathComponent, systemImage: "play.fill") {
                        chat.unload()  // its memory and the GPU are the benchmark's
                        bench.run(bundle)
                    }
                    .disabled(mismatch != nil || chat.isBusy)
                    if let mismatch {
                        Text(verbatim: mismatch)
                            .font(.footnote)
                            .foregroundStyle(.secondary)
                    }
                }
            }
            if usable.isEmpty {
                Text("No bundle on this device.")
                    .foregroundStyle(.secondary)
            }
        }
    }

    private var usable: [ModelBundle] { library.bundles.compactMap { try? $0.bundle.get() } }

    private func running(_ stage: Benchmark.Stage) -> some View {
        Section("Running") {
            ProgressView(value: stage.total > 0 ? Double(stage.done) / Double(stage.total) : nil) {
                Text(verbatim: stage.what)
            }
            .accessibilityAddTraits(.updatesFrequently)
            Button("Stop", systemImage: "stop.fill", role: .cancel, action: bench.stop)
        }
    }
}
