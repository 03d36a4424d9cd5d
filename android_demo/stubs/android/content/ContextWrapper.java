package android.content;

public class ContextWrapper extends Context {
    public ContextWrapper(Context base) { throw new RuntimeException("a stub"); }

    protected void attachBaseContext(Context base) { throw new RuntimeException("a stub"); }

    @Override
    public Context getApplicationContext() { throw new RuntimeException("a stub"); }

    @Override
    public java.io.File getExternalFilesDir(String type) { throw new RuntimeException("a stub"); }

    @Override
    public java.io.File getFilesDir() { throw new RuntimeException("a stub"); }

    @Override
    public Object getSystemService(String name) { throw new RuntimeException("a stub"); }

    @Override
    public android.content.res.Resources getResources() { throw new RuntimeException("a stub"); }

    @Override
    public ContentResolver getContentResolver() { throw new RuntimeException("a stub"); }

    @Override
    public void startActivity(Intent intent) { throw new RuntimeException("a stub"); }
}
