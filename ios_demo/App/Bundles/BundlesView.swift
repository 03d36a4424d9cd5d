import SmolshipCore
import SwiftUI
import UniformTypeIdentifiers

struct BundlesView: View {
    @Bindable var library: Library
    let chat: ChatModel
    let chosen: @MainActor () -> Void
    @State private var picking = false

    var body: some View {
        NavigationStack {
            List {
                Section("On this device") {
                    if library.bundles.isEmpty {
                        Text("None yet.")
                            .foregroundStyle(.secondary)
                    }
                    ForEach(library.bundles, id: \.name) { stored in
                        switch stored.bundle {
                        case .success(let bundle): BundleRow(bundle: bundle, chat: chat, chosen: chosen)
                        case .failure(let refusal): BrokenRow(name: stored.name, refusal: refusal)
                        }
                    }
                    .onDelete(perform: remove)
                }
                bring
                Section {
                    LabeledContent("Free storage", value: library.free.map(megabytes) ?? "unknown")
                    if library.unfinished > 0, library.job == nil {
                        Button("Remove unfinished downloads (\(megabytes(library.unfinished)))", role: .destructive) {
                            library.removeUnfinished()
                        }
                    }
                }
            }
            .navigationTitle("Bundles")
            .refreshable { library.refresh() }
            .fileImporter(isPresented: $picking, allowedContentTypes: [.folder]) { picked in
                switch picked {
                case .success(let folder): library.copy(from: folder)
                case .failure(let error): library.problem = Refusal(of: error)
                }
            }
            .alert(problem: $library.problem)
        }
    }

    @ViewBuilder private var bring: some View {
        Section {
            if let job = library.job {
                ProgressView(value: job.fraction) { Text(job.title) }
                    .accessibilityLabel(job.title)
                    .accessibilityAddTraits(.updatesFrequently)
                Button("Cancel", role: .cancel, action: library.cancel)
            } else {
                Button("Choose a folder", systemImage: "folder") { picking = true }
                TextField("http://computer.local:8000/smollm2", text: $library.address)
                    .textContentType(.URL)
                    .keyboardType(.URL)
                    .textInputAutocapitalization(.never)
                    .autocorrectionDisabled()
                    .accessibilityLabel("Address of a bundle's folder")
                Button("Download", systemImage: "arrow.down.circle", action: library.download)
                    .disabled(library.address.isEmpty)
            }
        } header: {
            Text("Bring a bundle")
        } footer: {
            Text(
                "Or copy its folder into this app's Documents, with Files or with Finder. Each file is held against its SHA-256. A download that was broken off goes on where it was."
            )
        }
    }

    private func remove(at places: IndexSet) {
        for name in places.map({ library.bundles[$0].name }) {
            chat.forget(name)
            library.remove(name)
        }
    }
}

/// A bundle, and a button for each engine that can run it.
private struct BundleRow: View {
    let bundle: ModelBundle
    let chat: ChatModel
    let chosen: @MainActor () -> Void

    var body: some View {
        let manifest = bundle.manifest
        VStack(alignment: .leading, spacing: 6) {
            Text(verbatim: bundle.root.lastPathComponent)
                .font(.headline)
            Text(verbatim: "\(manifest.model.source), \(manifest.quantization.name), \(megabytes(manifest.bytes))")
                .font(.subheadline)
                .foregroundStyle(.secondary)
            if manifest.file("template.json") == nil {
                Label(
                    "Its chat template cannot be rendered here: benchmarks only.",
                    systemImage: "exclamationmark.triangle"
                )
                .font(.footnote)
            }
            if kinds.isEmpty {
                Text("Nothing in it runs here: \(manifest.targets.map(\.target).joined(separator: ", ")).")
                    .font(.footnote)
            }
            ForEach(kinds) { kind in
                Button {
                    if !isChosen(kind) { chat.choose(bundle, kind) }
                    chosen()
                } label: {
                    Label("Chat by \(kind.title)", systemImage: isChosen(kind) ? "checkmark.circle.fill" : "circle")
                }
                .buttonStyle(.borderless)
                .disabled(manifest.file("template.json") == nil)
                .accessibilityHint(kind.note)
                .accessibilityAddTraits(isChosen(kind) ? .isSelected : [])
            }
        }
        .padding(.vertical, 4)
    }

    private var kinds: [EngineKind] { EngineKind.kinds(of: bundle.manifest) }

    private func isChosen(_ kind: EngineKind) -> Bool {
        chat.bundle?.root.lastPathComponent == bundle.root.lastPathComponent && chat.kind == kind
    }
}

/// A folder that is no bundle, or one that cannot be used, and why.
private struct BrokenRow: View {
    let name: String
    let refusal: Refusal

    var body: some View {
        VStack(alignment: .leading, spacing: 4) {
            Label(name, systemImage: "exclamationmark.triangle")
                .font(.headline)
            Text(verbatim: "\(refusal.what)\n\(refusal.details)")
                .font(.footnote)
                .foregroundStyle(.secondary)
        }
        .accessibilityElement(children: .combine)
    }
}
