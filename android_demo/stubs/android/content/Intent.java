package android.content;

public class Intent {
    public static final String ACTION_OPEN_DOCUMENT_TREE = "android.intent.action.OPEN_DOCUMENT_TREE";

    public Intent(String action) { throw new RuntimeException("a stub"); }

    public Intent(Context context, Class<?> activity) { throw new RuntimeException("a stub"); }

    public android.net.Uri getData() { throw new RuntimeException("a stub"); }

    public String getStringExtra(String name) { throw new RuntimeException("a stub"); }
}
