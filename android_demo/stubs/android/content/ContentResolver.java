package android.content;

public abstract class ContentResolver {
    public ContentResolver(android.content.Context context) {}

    public final java.io.InputStream openInputStream(android.net.Uri uri) throws java.io.FileNotFoundException { throw new RuntimeException("a stub"); }

    public final android.database.Cursor query(
        android.net.Uri uri, String[] columns, String selection, String[] arguments, String order) { throw new RuntimeException("a stub"); }
}
