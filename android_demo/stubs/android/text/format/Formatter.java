package android.text.format;

public final class Formatter {
    public static String formatShortFileSize(android.content.Context context, long bytes) { throw new RuntimeException("a stub"); }
}
