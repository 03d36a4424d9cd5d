package android.app;

public class ActivityManager {
    ActivityManager() {}

    public void getMemoryInfo(MemoryInfo out) { throw new RuntimeException("a stub"); }

    public static class MemoryInfo {
        public long availMem;
        public long totalMem;
        public boolean lowMemory;
    }
}
