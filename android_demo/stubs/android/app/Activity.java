package android.app;

public class Activity extends android.view.ContextThemeWrapper {
    public static final int RESULT_OK = -1;

    public void setContentView(int layout) { throw new RuntimeException("a stub"); }

    public <T extends android.view.View> T findViewById(int id) { throw new RuntimeException("a stub"); }

    public android.view.LayoutInflater getLayoutInflater() { throw new RuntimeException("a stub"); }

    public android.view.Window getWindow() { throw new RuntimeException("a stub"); }

    public android.content.Intent getIntent() { throw new RuntimeException("a stub"); }

    public void setIntent(android.content.Intent intent) { throw new RuntimeException("a stub"); }

    public void finish() { throw new RuntimeException("a stub"); }

    public final void runOnUiThread(Runnable action) { throw new RuntimeException("a stub"); }

    public void startActivityForResult(android.content.Intent intent, int request) { throw new RuntimeException("a stub"); }

    protected void onCreate(android.os.Bundle saved) { throw new RuntimeException("a stub"); }

    protected void onStart() { throw new RuntimeException("a stub"); }

    protected void onStop() { throw new RuntimeException("a stub"); }

    protected void onDestroy() { throw new RuntimeException("a stub"); }

    protected void onNewIntent(android.content.Intent intent) { throw new RuntimeException("a stub"); }

    protected void onSaveInstanceState(android.os.Bundle out) { throw new RuntimeException("a stub"); }

    protected void onActivityResult(int request, int result, android.content.Intent data) { throw new RuntimeException("a stub"); }
}
