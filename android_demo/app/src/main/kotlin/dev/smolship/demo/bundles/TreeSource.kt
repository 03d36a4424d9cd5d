package dev.smolship.demo.bundles

import android.content.ContentResolver
import android.net.Uri
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import dev.smolship.core.bundle.Source
import java.io.IOException
import java.io.InputStream

/** A folder that the system's picker gave: any app may offer it, a cloud drive as well. */
class TreeSource(private val resolver: ContentResolver, private val tree: Uri) : Source {
    private val root = DocumentsContract.getTreeDocumentId(tree)
    private val folders = HashMap<String, Map<String, String>>() // ids by name, of each folder that was looked into

    /** The folder's name. */
    fun name(): String? = first(DocumentsContract.buildDocumentUriUsingTree(tree, root), Document.COLUMN_DISPLAY_NAME)

    override fun open(path: String): InputStream? {
        var id = root
        for (name in path.split('/')) id = children(id)[name] ?: return null
        return asked { resolver.openInputStream(DocumentsContract.buildDocumentUriUsingTree(tree, id)) }
    }

    private fun children(folder: String): Map<String, String> = folders.getOrPut(folder) {
        val found = HashMap<String, String>()
        val uri = DocumentsContract.buildChildDocumentsUriUsingTree(tree, folder)
        val columns = arrayOf(Document.COLUMN_DISPLAY_NAME, Document.COLUMN_DOCUMENT_ID)
        asked { resolver.query(uri, columns, null, null, null) }?.use { rows ->
            while (rows.moveToNext() && found.size < MOST) found[rows.getString(0) ?: continue] = rows.getString(1)
        }
        found
    }

    private fun first(uri: Uri, column: String): String? = asked {
        resolver.query(uri, arrayOf(column), null, null, null)
    }?.use { if (it.moveToFirst()) it.getString(0) else null }

    /** What other apps throw, as an error of reading. */
    private fun <T> asked(action: () -> T): T = try {
        action()
    } catch (error: SecurityException) {
        throw IOException("the folder may not be read: ${error.message}")
    } catch (error: RuntimeException) {
        throw IOException("the app that offers the folder failed: $error")
    }

    private companion object {
        const val MOST = 100_000 // files of a folder
    }
}
