package dev.smolship.demo

import android.app.Activity
import android.app.AlertDialog
import android.content.ActivityNotFoundException
import android.content.Intent
import android.os.Bundle
import android.text.format.Formatter
import android.view.View
import android.widget.Button
import android.widget.CheckBox
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ProgressBar
import android.widget.TextView
import dev.smolship.core.bundle.Stored
import dev.smolship.demo.bundles.Job
import dev.smolship.demo.bundles.LibraryState
import dev.smolship.demo.bundles.TreeSource
import dev.smolship.demo.bundles.Unfinished
import dev.smolship.demo.bundles.UrlHttp
import dev.smolship.demo.chat.Choice
import dev.smolship.demo.engine.ENGINES

/** The bundles: choosing one to talk with, adding, checking, removing. */
class BundlesActivity : Activity() {
    private val library by lazy { demo.library }

    private lateinit var list: LinearLayout
    private lateinit var problem: TextView
    private lateinit var address: EditText

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.bundles)
        list = findViewById(R.id.list)
        problem = findViewById(R.id.problem)
        address = findViewById(R.id.address)
        address.setText(saved?.getString(ADDRESS).orEmpty())
        findViewById<View>(R.id.back).setOnClickListener { finish() }
        findViewById<View>(R.id.add_folder).setOnClickListener { pickFolder() }
        findViewById<View>(R.id.download).setOnClickListener { library.download(address.text.toString(), UrlHttp()) }
        findViewById<View>(R.id.cancel).setOnClickListener { library.cancel() }
    }

    override fun onSaveInstanceState(out: Bundle) {
        super.onSaveInstanceState(out)
        out.putString(ADDRESS, address.text.toString())
    }

    override fun onStart() {
        super.onStart()
        library.listener = ::show
        library.refresh()
    }

    override fun onStop() {
        library.listener = null
        super.onStop()
    }

    private fun pickFolder() {
        try {
            startActivityForResult(Intent(Intent.ACTION_OPEN_DOCUMENT_TREE), FOLDER)
        } catch (error: ActivityNotFoundException) {
            showProblem(error.message)
        }
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        super.onActivityResult(request, result, data)
        val tree = data?.data
        if (request != FOLDER || result != RESULT_OK || tree == null) return
        val source = TreeSource(contentResolver, tree)
        library.import(source, source::name)
    }

    private fun show(state: LibraryState) {
        val said =
            when {
                state.problem != null -> state.problem
                state.cancelled -> getString(R.string.cancelled)
                state.good != null -> getString(R.string.files_good, state.good)
                else -> null
            }
        showProblem(said)
        showJob(state.job)
        val shown = Triple(state.bundles, state.unfinished, state.thinkers)
        if (list.tag == shown) return
        list.tag = shown
        list.removeAllViews()
        state.bundles.forEach { list.addView(viewOf(it, it.name in state.thinkers)) }
        state.unfinished.forEach { list.addView(viewOf(it)) }
        if (list.childCount == 0) {
            val none = layoutInflater.inflate(R.layout.message, list, false) as TextView
            none.text = getString(R.string.no_bundles, library.folder)
            list.addView(none)
        }
    }

    private fun showProblem(text: String?) {
        if (problem.text.toString() != text.orEmpty()) problem.text = text.orEmpty()
        problem.visibility = if (text == null) View.GONE else View.VISIBLE
    }

    private fun showJob(job: Job?) {
        findViewById<View>(R.id.job).visibility = if (job == null) View.GONE else View.VISIBLE
        findViewById<View>(R.id.add).visibility = if (job == null) View.VISIBLE else View.GONE
        if (job == null) return
        val bar = findViewById<ProgressBar>(R.id.job_bar)
        bar.isIndeterminate = job.total <= 0
        bar.max = STEPS
        if (job.total > 0) bar.progress = (STEPS * job.done.toDouble() / job.total).toInt()
        val done = Formatter.formatShortFileSize(this, job.done)
        val total = Formatter.formatShortFileSize(this, job.total)
        val name = if (job.file.isEmpty()) job.bundle else "${job.bundle}/${job.file}"
        findViewById<TextView>(R.id.job_text).text = getString(R.string.progress, name, done, total)
    }

    private fun viewOf(bundle: Stored, thinker: Boolean): View {
        val view = layoutInflater.inflate(R.layout.bundle, list, false)
        val manifest = bundle.manifest
        view.findViewById<TextView>(R.id.name).text = bundle.name
        view.findViewById<TextView>(R.id.facts).text =
            if (manifest == null) {
                bundle.refusal?.message
            } else {
                val size = Formatter.formatShortFileSize(this, manifest.files.values.sumOf { it.size })
                "${manifest.model.source}, ${manifest.quantization.name}\n" +
                    getString(R.string.size, size, manifest.context)
            }
        val thinking = view.findViewById<CheckBox>(R.id.thinking)
        thinking.visibility = if (thinker) View.VISIBLE else View.GONE
        val targets = view.findViewById<LinearLayout>(R.id.targets)
        for ((target, entry) in manifest?.targets.orEmpty()) {
            if (entry.engine in ENGINES) targets.addView(buttonOf(bundle.name, target, thinking))
        }
        view.findViewById<View>(R.id.check).apply {
            contentDescription = getString(R.string.check_spoken, bundle.name)
            isEnabled = manifest != null
            setOnClickListener { library.check(bundle) }
        }
        view.findViewById<View>(R.id.remove).apply {
            contentDescription = getString(R.string.remove_spoken, bundle.name)
            setOnClickListener { askToRemove(bundle) }
        }
        return view
    }

    private fun viewOf(download: Unfinished): View {
        val view = layoutInflater.inflate(R.layout.bundle, list, false)
        view.findViewById<TextView>(R.id.name).text = download.name
        view.findViewById<TextView>(R.id.facts).text = getString(R.string.unfinished)
        view.findViewById<Button>(R.id.check).apply {
            text = getString(R.string.go_on)
            contentDescription = getString(R.string.go_on_spoken, download.name)
            isEnabled = download.url != null
            setOnClickListener { download.url?.let { library.download(it, UrlHttp()) } }
        }
        view.findViewById<View>(R.id.remove).apply {
            contentDescription = getString(R.string.remove_spoken, download.name)
            setOnClickListener { library.remove(download.name) }
        }
        return view
    }

    private fun buttonOf(name: String, target: String, thinking: CheckBox) = Button(this).apply {
        text = target
        contentDescription = getString(R.string.talk_spoken, name, target)
        setOnClickListener {
            demo.chat.choose(Choice(name, target, thinking.isChecked))
            finish()
        }
    }

    private fun askToRemove(bundle: Stored) {
        val size = Formatter.formatShortFileSize(this, bundle.manifest?.files?.values?.sumOf { it.size } ?: 0)
        AlertDialog.Builder(this)
            .setMessage(getString(R.string.remove_question, bundle.name, size))
            .setPositiveButton(R.string.remove) { _, _ -> library.remove(bundle.name) }
            .setNegativeButton(R.string.cancel, null)
            .show()
    }

    private companion object {
        const val ADDRESS = "address"
        const val FOLDER = 1
        const val STEPS = 1000
    }
}
