package android.widget;

public class ProgressBar extends android.view.View {
    public ProgressBar(android.content.Context context) {
        super(context);
    }

    public boolean isIndeterminate() { throw new RuntimeException("a stub"); }

    public void setIndeterminate(boolean indeterminate) { throw new RuntimeException("a stub"); }

    public int getMax() { throw new RuntimeException("a stub"); }

    public void setMax(int max) { throw new RuntimeException("a stub"); }

    public int getProgress() { throw new RuntimeException("a stub"); }

    public void setProgress(int progress) { throw new RuntimeException("a stub"); }
}
