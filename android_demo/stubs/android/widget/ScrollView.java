package android.widget;

public class ScrollView extends FrameLayout {
    public ScrollView(android.content.Context context) {
        super(context);
    }

    public final void smoothScrollTo(int x, int y) { throw new RuntimeException("a stub"); }
}
