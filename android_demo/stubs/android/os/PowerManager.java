package android.os;

public final class PowerManager {
    private PowerManager() {}

    public int getCurrentThermalStatus() { throw new RuntimeException("a stub"); }
}
