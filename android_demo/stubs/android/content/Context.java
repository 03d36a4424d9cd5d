package android.content;

public abstract class Context {
    public static final String ACTIVITY_SERVICE = "activity";
    public static final String POWER_SERVICE = "power";

    public abstract Context getApplicationContext();

    public abstract java.io.File getExternalFilesDir(String type);

    public abstract java.io.File getFilesDir();

    public abstract Object getSystemService(String name);

    public abstract android.content.res.Resources getResources();

    public abstract ContentResolver getContentResolver();

    public abstract void startActivity(Intent intent);

    public final String getString(int id) { throw new RuntimeException("a stub"); }

    public final String getString(int id, Object... values) { throw new RuntimeException("a stub"); }
}
