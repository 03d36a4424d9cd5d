package dev.smolship.demo.bundles

import dev.smolship.core.Refusal
import dev.smolship.core.bundle.Http
import dev.smolship.core.bundle.Response
import java.io.ByteArrayInputStream
import java.net.HttpURLConnection
import java.net.MalformedURLException
import java.net.URL

/** HTTP by the platform's own client, which follows redirects within one protocol. */
class UrlHttp(private val timeoutMs: Int = 30_000) : Http {
    override fun get(url: String, from: Long): Response {
        val connection = address(url).openConnection() as HttpURLConnection
        connection.connectTimeout = timeoutMs
        connection.readTimeout = timeoutMs
        connection.setRequestProperty("Accept-Encoding", "identity") // sizes and ranges are those of the files
        if (from > 0) connection.setRequestProperty("Range", "bytes=$from-")
        val status = connection.responseCode
        val first = connection.getHeaderField("Content-Range")?.let {
            POSITION.matchEntire(it)
        }?.groupValues?.get(1)?.toLong()
        val good = status in HttpURLConnection.HTTP_OK until HttpURLConnection.HTTP_MULT_CHOICE
        val body = if (good) connection.inputStream else connection.errorStream ?: ByteArrayInputStream(ByteArray(0))
        return Response(status, first, body)
    }

    private fun address(url: String): URL {
        val found =
            try {
                URL(url)
            } catch (error: MalformedURLException) {
                throw Refusal("not an address", url, "https://…", "look at how it is written")
            }
        if (found.protocol !in PROTOCOLS) throw Refusal("not an address to download from", url, "https://…")
        return found
    }

    private companion object {
        val PROTOCOLS = setOf("https", "http") // where the network's rules allow the latter
        val POSITION = Regex("bytes (\\d{1,18})-.*")
    }
}
