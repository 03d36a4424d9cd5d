package android.os;

public class BaseBundle {
    BaseBundle() {}

    public String getString(String key) { throw new RuntimeException("a stub"); }

    public void putString(String key, String value) { throw new RuntimeException("a stub"); }
}
